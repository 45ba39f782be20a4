/* The slot of the crash output: profiler/agent/crash/output_slot.c, access by access, under sequential consistency.
 *
 * Two swappers duplicate files of their own and put them in the slot, or turn the output off. The crash takes the slot, writes, and
 * may end, so that another begins. The program opens a foreign file, which gets a number that is free, and closes it again or not;
 * with HOSTILE it also closes one of our descriptors once, as closefrom does, whose number may then be anybody's.
 *
 * Claims, as assertions: the writer writes to the file that it took, which was set, and to no closed or foreign one; without
 * HOSTILE that holds without a look (which the model leaves out then), by order alone; the report is whole; swaps close what is theirs;
 * nothing is left open but the slot's, and what was taken out under a crash.
 *
 * A look and what follows it are one step: no system call looks and writes, and what the program closes in between it closes
 * under anybody. Each MUTANT_x leaves one thing out. crash_output.sh demands that spin finds an error then. */
#define NUMBERS 4   /* of descriptors */
#define FOREIGN 7   /* a file that is none of ours; 1 and up: the swappers' files; 0: closed */
#define OFF     255 /* of the slot: no output */

#ifndef SWAPS
#define SWAPS 2 /* of the first swapper; the other has one */
#endif
#ifndef OPENS
#define OPENS 1 /* of the program */
#endif
#ifndef CRASHES
#define CRASHES 2
#endif

byte file[NUMBERS]; /* what each descriptor is */
byte slot = OFF;    /* a descriptor, */
byte mark;          /* and what it was when it was put there: one word with it */
bool crashing;

/* What only the claims know. */
bool crashed;         /* there was a crash */
bool leaked[NUMBERS]; /* left open, since a crash had begun */
bool hostile;         /* the program has closed one of ours */
byte ends;

#if defined(HOSTILE) && !defined(MUTANT_LOOK)
#define SAME(fd, what) (file[fd] == (what))
#else
#define SAME(fd, what) true
#endif
#if defined(HOSTILE) && !defined(MUTANT_CLOSE)
#define OWN(fd, what) (file[fd] == (what))
#else
#define OWN(fd, what) true
#endif

/* The lowest number that is free, as the kernel does: what was closed last is given out soon. */
inline take_number(fd, what)
{
    if
    :: file[0] == 0 -> fd = 0
    :: file[0] && file[1] == 0 -> fd = 1
    :: file[0] && file[1] && file[2] == 0 -> fd = 2
    :: file[0] && file[1] && file[2] && file[3] == 0 -> fd = 3
    :: file[0] && file[1] && file[2] && file[3] -> fd = OFF /* EMFILE */
    fi;
    if
    :: fd != OFF -> file[fd] = what
    :: fd == OFF
    fi
}

inline close_number(fd)
{
    file[fd] = 0;
    leaked[fd] = false
}

/* stile__crash_output_swap. */
proctype swapper(byte own; byte swaps)
{
    byte to, old, was;
    bool busy;

    do
    :: swaps > 0 ->
        swaps--;
        if
        :: to = OFF /* -1 */
        :: atomic { take_number(to, own); if :: to == OFF -> goto next :: to != OFF fi }
        fi;
        if
        :: crashing ->
#ifndef MUTANT_DUPLICATE
            atomic { if :: to != OFF && OWN(to, own) -> close_number(to) :: else fi };
#endif
            goto next
        :: !crashing
        fi;
#ifdef MUTANT_SWAP
        busy = crashing;
#endif
        atomic { /* X1 */
            old = slot;
            was = mark;
            slot = to;
            mark = (to != OFF -> own : 0);
        }
#ifndef MUTANT_SWAP
        busy = crashing; /* X2 */
#endif
#ifdef MUTANT_ALWAYS
        busy = false;
#endif
        atomic {
            if
            :: old != OFF && busy -> assert(crashed); leaked[old] = true
            :: old != OFF && !busy && OWN(old, was) ->
                assert(file[old] == was); /* nobody else's is closed */
                close_number(old)
            :: else
            fi
        }
next:   atomic { to = OFF; old = OFF; was = 0; busy = false }
    :: swaps == 0 -> break
    od;
    ends++
}

/* stile__crash_output_begin, a report of two parts, stile__crash_output_end. */
proctype crash()
{
    byte crashes = CRASHES, fd, what, parts, written;

    do
    :: crashes > 0 ->
        crashes--;
#ifdef MUTANT_CRASH
        atomic { fd = slot; what = mark }
#endif
        atomic { crashing = true; crashed = true } /* C1 */
#ifndef MUTANT_CRASH
        atomic { fd = slot; what = mark } /* C2 */
#endif
        assert(fd == OFF || what == 1 || what == 2);
        parts = 2;
        do
        :: parts > 0 && fd != OFF ->
            atomic {
                parts--;
                if
                :: SAME(fd, what) -> assert(file[fd] == what); written++
                :: else
                fi
            }
        :: else -> break
        od;
        atomic { assert(fd == OFF || hostile || written == 2); written = 0; parts = 0 }
        if
        :: crashing = false
        :: break /* dies: nothing goes on */
        fi;
        fd = OFF;
        what = 0
    :: crashes == 0 -> break
    od;
    ends++
}

proctype program()
{
    byte opens = OPENS, fd = OFF;

#ifdef HOSTILE
    atomic {
        if
        :: slot != OFF -> close_number(slot); hostile = true
        :: true
        fi
    }
#endif
    do
    :: opens > 0 ->
        opens--;
        atomic { take_number(fd, FOREIGN) }
        atomic {
            if
            :: fd != OFF -> assert(file[fd] == FOREIGN); close_number(fd)
            :: fd == OFF
            :: fd = OFF /* it stays open */
            fi
        }
    :: opens == 0 -> break
    od;
    ends++
}

#define KEPT(n) (file[n] == 0 || file[n] == FOREIGN || slot == n || leaked[n])

init
{
    atomic {
        run swapper(1, SWAPS);
        run swapper(2, 1);
#ifdef CRASH
        run crash();
#else
        ends++;
#endif
        run program()
    }
    ends == 4;
    /* A swap's duplicate that a hostile program's closing made somebody else's is past knowing. */
    assert(hostile || (KEPT(0) && KEPT(1) && KEPT(2) && KEPT(3)));
    assert(crashed || !(leaked[0] || leaked[1] || leaked[2] || leaked[3]))
}

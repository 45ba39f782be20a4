/* The word that says who owns a stack: barriers/ownership.[ch], access by access, under sequential consistency.
 *
 * A thread waits, is perhaps interrupted by its own handler, which only tries to resume, and dies, out of a wait or not; then
 * another one has the slot. The teller (the collector) reads what was left and books the time that has passed. Another reader
 * only reads. Both may die while they have SCAN; that they may stall is what interleavings are. A freezer stops the world.
 *
 * Claims, as assertions: what a reader read while it had its scan did not change, or its end of the scan fails, and that only
 * after the thread has lost patience; nothing valid is read of a thread that is gone; who was seen waiting under a freeze does
 * not run before the freeze ends; each unit of a wait's time is booked once. No deadlock; and the thread gets out.
 *
 * Each MUTANT_x leaves one thing out. ownership.sh demands that spin finds an error then; UNBOOKED has it look past the books. */
#define NONE    0
#define RUNNING 1
#define WAITING 2
#define DEAD    3

/* As the real one, but smaller. Both counts are larger than what can happen between a look and its exchange. */
#define SCAN          4
#define SCANS_ONE     64
#define STATE(w)      ((w) & 3)
#define NUMBER(w)     (((w) >> 3) & 7)
#define SCANS(w)      (((w) / SCANS_ONE) & 31)
#define SIDE(w)       (SCANS(w) & 1)
#define WITH(w, s)    (((w) & ~7) | (s))
#define NEXT_WAIT(w)  (((w) & ~63) | (((NUMBER(w) + 1) & 7) << 3) | WAITING)
#define LET_GO(w, by) ((((w) & ~SCAN) & 63) | (((SCANS(w) + (by)) & 31) * SCANS_ONE))

#ifndef LIVES
#define LIVES 2 /* threads that have the slot, one after the other */
#endif
#ifndef WAITS
#define WAITS 2 /* of the first one; the others have one */
#endif
#ifndef ROUNDS
#define ROUNDS 2 /* of each reader */
#endif
#define PATIENCE 1 /* looks at a reader's SCAN before the thread takes the word */
#define UNITS    2 /* of time that a wait takes at most */

short word = NONE;
byte left;     /* in the page: the number of the wait, plus one; 0 while the thread runs and writes there */
byte told[2];  /* in the page: units that are in the books, if the word says that it is this one */
bool freezing;

/* What only the claims know. */
byte now;      /* units that this wait has taken so far */
byte booked;   /* units of it that are in the books */
bool runs, stopped, dead, out;
bool forced;   /* some scan was ended by force */

#define EXCHANGE(from, to) atomic { done = false; if :: word == (from) -> word = (to); done = true :: else fi }

inline resumed()
{
    runs = true;
    assert(!stopped);
}

/* stile__stack_resume_try. */
inline resume_try(seen)
{
    done = false;
#ifdef MUTANT_ORDER
    frozen = freezing;
#endif
    seen = word;
    if
    :: STATE(seen) != WAITING
#ifndef MUTANT_WAIT
    :: STATE(seen) == WAITING && (seen & SCAN)
    :: STATE(seen) == WAITING && !(seen & SCAN) ->
#else
    :: STATE(seen) == WAITING ->
#endif
#if defined(MUTANT_FREEZING)
        frozen = false;
#elif !defined(MUTANT_ORDER)
        frozen = freezing;
#endif
        if
        :: frozen
        :: !frozen ->
            atomic { EXCHANGE(seen, WITH(seen, RUNNING)); if :: done -> resumed() :: !done fi }
        fi
    fi
}

/* scan_break. */
inline break_scan(seen)
{
    atomic {
#ifdef MUTANT_SIDE
        EXCHANGE(seen, LET_GO(seen, 1));
#else
        EXCHANGE(seen, LET_GO(seen, 2));
#endif
        forced = forced || done
    }
}

/* Whether a look at a reader was one too many. */
inline lose_patience(seen)
{
#ifndef MUTANT_PATIENCE
    if
    :: tries >= PATIENCE -> break_scan(seen)
    :: tries < PATIENCE -> tries++
    fi
#else
    skip
#endif
}

/* The thread, and its handler, which interrupts it at any look. */
proctype owner()
{
    short w;
    byte lives = LIVES, waits = WAITS, tries;
    bool done, frozen, handled;

    do
    :: lives > 0 ->
        lives--;
        atomic { word = WITH(word, RUNNING); runs = true; dead = false } /* stile__stack_begin; of a slot that is its own */
        do
        :: waits > 0 ->
            waits--;
            d_step { told[0] = 0; told[1] = 0; now = 0; booked = 0; left = NUMBER(word) + 2 }
            atomic { /* stile__stack_wait: nobody else changes the word of a running thread, so that this is one step */
                w = word;
                EXCHANGE(w, NEXT_WAIT(w));
                assert(done);
                runs = false;
                w = 0
            }
            do
            :: now < UNITS -> now++
            :: break
            od;
            if
            :: goto dies /* the wait is never left otherwise: cancelled, it may be */
            :: skip
            fi;
            do /* stile__stack_resume */
            :: if
               :: !handled -> handled = true; resume_try(w); w = 0
               :: true
               fi;
               resume_try(w);
               if
               :: done -> break
               :: !done && STATE(w) != WAITING -> break /* the handler was here */
               :: !done && STATE(w) == WAITING && (w & SCAN) -> lose_patience(w)
               :: !done && STATE(w) == WAITING && !(w & SCAN)
               fi
            od;
            /* Only the rest is told by the thread. */
            atomic { booked = booked + (now - told[SIDE(w)]);
#ifndef UNBOOKED
                assert(booked == now);
#endif
                left = 0; w = 0; tries = 0; handled = false; done = false; frozen = false
            }
        :: waits == 0 -> break
        od;
dies:   do /* stile__stack_die */
        :: w = word;
           if
#ifndef MUTANT_DIE
           :: w & SCAN -> lose_patience(w)
           :: !(w & SCAN) ->
#else
           :: true ->
#endif
               atomic {
                   EXCHANGE(w, WITH(w, DEAD));
                   if :: done -> runs = false; dead = true; break :: !done fi
               }
           fi
        od;
        atomic { left = 0; waits = 1; w = 0; tries = 0; handled = false; done = false; frozen = false }
    :: lives == 0 -> break
    od;
    out = true
}

/* stile__scan_begin. */
inline scan_begin()
{
    done = false;
    w = word;
    if
    :: STATE(w) == WAITING && !(w & SCAN) -> EXCHANGE(w, w | SCAN)
    :: STATE(w) == WAITING && (w & SCAN) /* busy */
    :: STATE(w) != WAITING
    fi;
    w = w | SCAN
}

/* stile__scan_end, and stile__scan_drop. */
inline scan_end(by)
{
    atomic {
#ifdef MUTANT_COUNT
        EXCHANGE(w, LET_GO(w, 0));
#else
        EXCHANGE(w, LET_GO(w, by));
#endif
        if
        :: done -> assert(!dead && first == NUMBER(w) + 1 && second == first)
        :: !done -> assert(forced)
        fi
    }
}

/* The one that tells. */
proctype teller()
{
    short w;
    byte rounds = ROUNDS, first, second, until, delay;
    bool done;

    do
    :: rounds > 0 ->
        rounds--;
        scan_begin();
        if
        :: done ->
            first = left;
            until = now;
            delay = until - told[SIDE(w)];
            told[1 - SIDE(w)] = until;
            if
            :: break /* dies */
            :: skip
            fi;
            second = left;
            atomic {
                scan_end(1);
                if :: done -> booked = booked + delay :: !done fi;
                w = 0; first = 0; second = 0; until = 0; delay = 0; done = false
            }
        :: !done -> w = 0
        fi
    :: rounds == 0 -> break
    od
}

/* Another one. */
proctype reader()
{
    short w;
    byte rounds = ROUNDS, first, second;
    bool done;

    do
    :: rounds > 0 ->
        rounds--;
        scan_begin();
        if
        :: done ->
            first = left;
#ifdef MUTANT_TELLERS
            told[1 - SIDE(w)] = told[SIDE(w)];
#endif
            if
            :: break /* dies */
            :: skip
            fi;
            second = left;
#ifdef MUTANT_TELLERS
            scan_end(1);
#else
            scan_end(2);
#endif
            atomic { w = 0; first = 0; second = 0; done = false }
        :: !done -> w = 0
        fi
    :: rounds == 0 -> break
    od
}

proctype freezer()
{
    short w;
    byte first, second;
    bool done;

    freezing = true;
    scan_begin();
    if
    :: done ->
        first = left;
        second = left;
        atomic { scan_end(2); if :: done -> stopped = true; assert(!runs) :: !done fi }
    :: !done
    fi;
    stopped = false;
    freezing = false
}

init
{
    atomic {
        run owner();
        run teller();
#ifdef READER
        run reader();
#endif
#ifdef FREEZER
        run freezer();
#endif
    }
}

ltl gets_out { <> out }

/* A thread that waits, as the collector sees it. */
#include "tests/unit/support.h"
#include "tests/unit/collector/hand_made_waits.h"

#include <stdlib.h>
#include <string.h>

#include "barriers/ownership.h"

uint64_t hand_made_frame(uint64_t i)
{
    return (uintptr_t)&hand_made_frame + i;
}

static void record_fill(struct stile__record *r, uint32_t n)
{
    r->kind = STILE__RECORD_WALKED;
    r->flags = STILE__IS_WAIT;
    r->n_new = r->n_inline = n;
    for (uint32_t i = 0; i < n; i++)
        r->words[i] = hand_made_frame(1 + i);
}

void hand_made_wait(struct hand_made *h, uint32_t n_frames, uint64_t why, uint32_t count, uint64_t delay_ns,
                    enum stile__reason reason)
{
    const struct stile__wait_words words = {delay_ns, why, hand_made_frame(1)};
    uint64_t commit;
    struct stile__record *r = hand_made_reserve(h, n_frames + STILE__WAIT_WORDS, &commit);
    record_fill(r, n_frames);
    r->reason = (uint8_t)reason;
    r->ticks = count;
    memcpy(r->words + n_frames, &words, sizeof words);
    stile__ring_commit(&h->slot->head, commit);
}

void hand_made_wait_begin(struct hand_made *h, enum stile__wait_reason why, uint64_t since_ns)
{
    memset(h->left, 0, STILE__PAGE);
    h->left->since_ns = since_ns;
    h->left->hook = hand_made_frame(1);
    record_fill(&h->left->record, 3);
    h->left->record.cells = (uint8_t)stile__record_cells(3 + STILE__WAIT_WORDS);
    h->left->record.frames_block = h->left->record.block = STILE__BLOCK_NONE;
    h->left->record.ticks = 1;
    if (!stile__stack_wait(&h->slot->status, why))
        abort();
}

uint64_t hand_made_wait_end(struct hand_made *h, uint64_t why)
{
    uint64_t status = stile__stack_resume(&h->slot->status, NULL), now = now_mono_ns();
    uint64_t told = h->left->told_ns[stile__stack_side(status)];
    hand_made_wait(h, 3, why, told == 0, now - (told != 0 ? told : h->left->since_ns), STILE__REASON_NONE);
    return now;
}

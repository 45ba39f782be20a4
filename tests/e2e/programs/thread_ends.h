/* Between thread_ends.c and the frames that it is built with. */
#ifndef STILE_E2E_THREAD_ENDS_H
#define STILE_E2E_THREAD_ENDS_H

#ifdef __cplusplus
extern "C" {
#endif

/* Works on so many frames, each of which has something to clean up, and calls what comes at the bottom. */
void frames_descend(unsigned depth, void (*at_the_bottom)(void));

/* The clean-up of the frame at that depth, above the bottom. */
void frame_cleaned(unsigned depth);

#ifdef __cplusplus
}
#endif

#endif

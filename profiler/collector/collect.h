/* The collector process. */
#ifndef STILE_COLLECTOR_COLLECT_H
#define STILE_COLLECTOR_COLLECT_H

/* Runs as `stile collect`, started by an agent or by `stile record` with the listening socket as descriptor 3.
 * Returns the exit status when the tree has ended and everything is written. */
int stile__collect(void);

#endif

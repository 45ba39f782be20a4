/* The agent's one logger. Normal context only; allocates nothing, keeps errno. */
#ifndef STILE_AGENT_LOG_H
#define STILE_AGENT_LOG_H

/* Remembers what standard error is now. Lines go there only as long as it is the same file: a program that has
 * closed it and opened a file of its own as descriptor 2 must not find our words in its data. */
void stile__log_init(void);

/* Writes "stile: " and one formatted line to standard error. */
__attribute__((format(printf, 1, 2))) void stile__log(const char *format, ...);

#endif

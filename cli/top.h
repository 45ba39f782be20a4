/* `stile top`: a profile as a table. Context: the command line. */
#ifndef STILE_CLI_TOP_H
#define STILE_CLI_TOP_H

/* argv[0] is "top". Prints to stdout, errors to stderr. Returns the exit status: 0, 1 if the table
 * cannot be written (a reader that went away is no error), 2 for bad arguments or a file that cannot be read. */
int stile__cmd_top(int argc, char **argv);

#endif

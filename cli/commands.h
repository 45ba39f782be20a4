/* The verbs of the command line. Each returns the exit status: 0, 1 when what was asked failed, 2 for bad arguments. */
#ifndef STILE_CLI_COMMANDS_H
#define STILE_CLI_COMMANDS_H

int stile__cmd_record(int argc, char **argv);
int stile__cmd_top(int argc, char **argv);
int stile__cmd_symbolize(int argc, char **argv);
int stile__cmd_dump(int argc, char **argv);

#endif

/* What can be known of a command before it runs: whether libstile gets into it, and what to do where it does not. */
#ifndef STILE_CLI_COMMAND_CHECK_H
#define STILE_CLI_COMMAND_CHECK_H

#include <limits.h>
#include <stdbool.h>

enum stile__command_kind {
    STILE__COMMAND_PLAIN,      /* nothing speaks against it, as far as can be seen */
    STILE__COMMAND_ASAN,       /* the same, but its runtime wants to come before all preloads */
    STILE__COMMAND_STATIC,     /* no loader, and no preload; its children may take it */
    STILE__COMMAND_PRIVILEGED, /* its loader takes no preload from whoever starts it */
    STILE__COMMAND_32_BIT,     /* its loader would complain of the preload in its output */
    STILE__COMMAND_FOREIGN,    /* for another processor: the same */
    STILE__COMMAND_OTHER_LIBC, /* its loader would not start it with the preload */
    STILE__COMMAND_INCOMPLETE, /* the interpreter or the loader that it names is not there */
};

struct stile__command {
    enum stile__command_kind kind;
    bool script;         /* file is the program that runs it, not the command itself */
    char file[PATH_MAX]; /* what is executed; INCOMPLETE: what is missing; "" if there is nothing */
};

/* Looks at the file that execvp would execute, with the interpreters of scripts followed. Says nothing. */
void stile__command_look(struct stile__command *c, const char *command);

/* The same, and one line on stderr if the command will have no profile. Returns whether it was said. */
bool stile__command_check(struct stile__command *c, const char *command);

/* In the child, before it becomes the command: the variables that bring libstile in, where they do no harm. */
void stile__command_environment(const struct stile__command *c, const char *preload);

/* One line about a command that could not be executed. Returns the exit status that a shell would give. */
int stile__command_failed(const struct stile__command *c, const char *command, int error);

#endif

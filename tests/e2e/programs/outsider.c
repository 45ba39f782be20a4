/* Prints another process's stack as libdw unwinds it, live: `outsider PID [STUB GO]`, a frame's function a line. With the
 * addresses of a stub and of the program's `go` it lets the main thread go on, instruction by instruction, until it is in
 * the stub, and does so at each of that one's instructions. */
#include <elfutils/libdwfl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>

#define STEPS_MAX 100000

static int frame_print(Dwfl_Frame *frame, void *dwfl)
{
    Dwarf_Addr pc;
    bool is_activation;
    if (!dwfl_frame_pc(frame, &pc, &is_activation))
        return -1;
    const Dwarf_Addr in = pc - !is_activation;
    Dwfl_Module *module = dwfl_addrmodule(dwfl, in);
    const char *name = module != NULL ? dwfl_module_addrname(module, in) : NULL;
    printf("%s\n", name != NULL ? name : "??");
    return DWARF_CB_OK;
}

static int thread_print(Dwfl_Thread *thread, void *dwfl)
{
    printf("thread\n");
    if (dwfl_thread_getframes(thread, frame_print, dwfl) != 0)
        printf("error: %s\n", dwfl_errmsg(-1));
    return DWARF_CB_OK;
}

static int stack_print(pid_t pid, bool stopped)
{
    static const Dwfl_Callbacks callbacks = {.find_elf = dwfl_linux_proc_find_elf,
                                             .find_debuginfo = dwfl_standard_find_debuginfo};
    Dwfl *dwfl = dwfl_begin(&callbacks);
    if (dwfl == NULL || dwfl_linux_proc_report(dwfl, pid) != 0 || dwfl_report_end(dwfl, NULL, NULL) != 0 ||
        dwfl_linux_proc_attach(dwfl, pid, stopped) != 0 || dwfl_getthreads(dwfl, thread_print, dwfl) != 0) {
        fprintf(stderr, "outsider: %s\n", dwfl_errmsg(-1));
        return 1;
    }
    dwfl_end(dwfl);
    return 0;
}

static int stepped_print(pid_t pid, uint64_t stub, uint64_t go)
{
    struct user_regs_struct regs = {.rip = 0};
    int status, err = 0, seen = 0;
    if (ptrace(PTRACE_ATTACH, pid, NULL, NULL) != 0 || waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status))
        return 1;
    uint64_t word = (uint64_t)ptrace(PTRACE_PEEKDATA, pid, (void *)go, NULL);
    ptrace(PTRACE_POKEDATA, pid, (void *)go, (void *)(word | 1));
    for (int i = 0; i < STEPS_MAX && seen < 2 && err == 0; i++) {
        if (ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) != 0 || waitpid(pid, &status, 0) != pid ||
            !WIFSTOPPED(status) || ptrace(PTRACE_GETREGS, pid, NULL, &regs) != 0)
            return 1;
        if (regs.rip - stub < 16) {
            printf("stub+%d\n", (int)(regs.rip - stub));
            err = stack_print(pid, true);
            seen++;
        }
    }
    ptrace(PTRACE_DETACH, pid, NULL, NULL);
    return err;
}

int main(int argc, char **argv)
{
    if (argc != 2 && argc != 4)
        return 2;
    const pid_t pid = (pid_t)strtol(argv[1], NULL, 10);
    return argc == 2 ? stack_print(pid, false)
                     : stepped_print(pid, strtoull(argv[2], NULL, 16), strtoull(argv[3], NULL, 16));
}

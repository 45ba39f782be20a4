/* Asks the kernel for the features of user shadow stacks, which it has since Linux 6.6. */
#include "barriers/shadow_stack.h"

#include "profiler/region/raw_syscall.h"

#include "profiler/agent/signal/poison.h"

#define ARCH_SHSTK_STATUS 0x5005
#define ARCH_SHSTK_SHSTK  1u

bool stile__shadow_stack_told(long result, uint64_t features)
{
    /* EINVAL of a kernel that does not know the question, ENOTSUPP of a processor that has none. */
    return result == 0 && (features & ARCH_SHSTK_SHSTK) != 0;
}

bool stile__shadow_stack_on(void)
{
    uint64_t features = 0;
    long result = stile__raw_syscall(SYS_arch_prctl, ARCH_SHSTK_STATUS, (long)&features, 0, 0);
    return stile__shadow_stack_told(result, features);
}

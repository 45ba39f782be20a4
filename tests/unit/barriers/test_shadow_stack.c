/* What the kernel says of a shadow stack. */
#include "tests/unit/support.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "barriers/shadow_stack.h"

static void test_answers(void **state)
{
    (void)state;
    assert_true(stile__shadow_stack_told(0, 1));
    assert_true(stile__shadow_stack_told(0, 3)); /* and the instructions that write there */
    assert_false(stile__shadow_stack_told(0, 0));
    assert_false(stile__shadow_stack_told(0, 2));
    assert_false(stile__shadow_stack_told(-EINVAL, 0));
    assert_false(stile__shadow_stack_told(-EINVAL, 1));
    assert_false(stile__shadow_stack_told(-524, 1)); /* ENOTSUPP, which is the kernel's own */
    assert_false(stile__shadow_stack_told(-EPERM, 1));
}

/* The kernel says the same in the process's status, where it knows of such features. */
static void test_this_process(void **state)
{
    char *status = file_text("/proc/self/status");
    char *line = strstr(status, "x86_Thread_features:");
    char *end = line != NULL ? strchr(line, '\n') : NULL;
    (void)state;
    if (end != NULL)
        *end = '\0';
    errno = 4711;
    assert_int_equal(stile__shadow_stack_on(), line != NULL && strstr(line, "shstk") != NULL);
    assert_int_equal(errno, 4711);
    free(status);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_this_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

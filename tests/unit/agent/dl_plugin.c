/* A library that comes and goes. What it does when it goes, the test says. */
#define EXPORT __attribute__((visibility("default")))

EXPORT void (*plugin_end)(void);

static __attribute__((destructor)) void end(void)
{
    if (plugin_end != 0)
        plugin_end();
}

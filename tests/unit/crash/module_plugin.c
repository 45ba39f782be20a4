/* A library whose functions have sizes and names that are to be told apart, for test_module.c. */
__attribute__((visibility("default"))) int plugin_exported(int x);
__attribute__((visibility("default"), weak)) int plugin_weak(int x);
__attribute__((visibility("default"))) int plugin_strong(int x) __attribute__((alias("plugin_weak")));
__attribute__((visibility("default"))) int (*plugin_hidden(void))(int x);

int plugin_exported(int x)
{
    return 3 * x;
}

int plugin_weak(int x)
{
    return 5 * x;
}

static __attribute__((noinline)) int hidden(int x)
{
    return x / 7;
}

int (*plugin_hidden(void))(int x)
{
    return hidden;
}

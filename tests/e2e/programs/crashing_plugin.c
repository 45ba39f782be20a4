/* Crashes while it is loaded, under the loader's lock. */
__attribute__((constructor)) static void plugin_loaded(void)
{
    static char *volatile nowhere = (char *)0x20;
    *nowhere = 1;
}

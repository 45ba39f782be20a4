/* Included last by every source that runs in the handler: what must not be called there does not compile. */
#ifndef STILE_AGENT_SIGNAL_POISON_H
#define STILE_AGENT_SIGNAL_POISON_H

#pragma GCC poison malloc calloc realloc free aligned_alloc posix_memalign strdup strndup asprintf
#pragma GCC poison printf fprintf snprintf sprintf vsnprintf vfprintf puts fputs perror fopen fclose fwrite  \
    fread
#pragma GCC poison pthread_mutex_lock pthread_mutex_trylock pthread_mutex_unlock pthread_cond_wait           \
    pthread_once
#pragma GCC poison pthread_rwlock_rdlock pthread_rwlock_wrlock sem_wait mtx_lock call_once
#pragma GCC poison getenv setenv secure_getenv dlopen dlsym dlclose dl_iterate_phdr exit abort longjmp
#pragma GCC poison mmap munmap open close read write syscall errno strerror localtime gettimeofday backtrace

#endif

// What does not block, though it might: a lock taken and given back, a semaphore posted and waited for, a byte through
// a pipe that has it. The same program is run with libstile and without.
#include <pthread.h>
#include <semaphore.h>
#include <unistd.h>

#include <benchmark/benchmark.h>

namespace
{

pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
sem_t semaphore;
int fds[2];

void pair_mutex(benchmark::State &state)
{
    for (auto _ : state) {
        pthread_mutex_lock(&mutex);
        pthread_mutex_unlock(&mutex);
    }
}
BENCHMARK(pair_mutex);

void pair_read_lock(benchmark::State &state)
{
    for (auto _ : state) {
        pthread_rwlock_rdlock(&rwlock);
        pthread_rwlock_unlock(&rwlock);
    }
}
BENCHMARK(pair_read_lock);

void pair_write_lock(benchmark::State &state)
{
    for (auto _ : state) {
        pthread_rwlock_wrlock(&rwlock);
        pthread_rwlock_unlock(&rwlock);
    }
}
BENCHMARK(pair_write_lock);

void pair_semaphore(benchmark::State &state)
{
    for (auto _ : state) {
        sem_post(&semaphore);
        sem_wait(&semaphore);
    }
}
BENCHMARK(pair_semaphore);

void pair_pipe(benchmark::State &state)
{
    char byte = 0;
    for (auto _ : state)
        if (write(fds[1], &byte, 1) != 1 || read(fds[0], &byte, 1) != 1)
            state.SkipWithError("the pipe does not go");
}
BENCHMARK(pair_pipe);

} // namespace

int main(int argc, char **argv)
{
    if (pipe(fds) != 0 || sem_init(&semaphore, 0, 0) != 0)
        return 1;
    benchmark::Initialize(&argc, argv);
    benchmark::RunSpecifiedBenchmarks();
    return 0;
}

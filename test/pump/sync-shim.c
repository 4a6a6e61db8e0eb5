/*
 * Preloaded before a child of the tests: makes each fdatasync take SYNC_DELAY_MS, and fail with EIO while the file
 * SYNC_FAILS exists. So it shows that an append waits for the disk, and what it does when the disk fails.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static int synced(const char *name, int fd) {
  const char *fails = getenv("SYNC_FAILS");
  const char *delay = getenv("SYNC_DELAY_MS");
  int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
  if (fails && access(fails, F_OK) == 0) {
    errno = EIO;
    return -1;
  }
  if (delay) usleep(1000 * atoi(delay));
  return real(fd);
}

int fdatasync(int fd) { return synced("fdatasync", fd); }
int fsync(int fd) { return synced("fsync", fd); }

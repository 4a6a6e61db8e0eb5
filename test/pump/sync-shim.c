/*
 * Preloaded before a child of the tests: makes each fdatasync take SYNC_DELAY_MS, and fail with EIO while the file
 * SYNC_FAILS exists; makes writes that are durable by themselves, as those of LMDB's first pages, fail with ENOSPC while
 * the file META_FAILS exists. So it shows that an append waits for the disk, and what it does when the disk fails.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

static int asked(const char *name) {
  const char *path = getenv(name);
  return path && access(path, F_OK) == 0;
}

static int synced(const char *name, int fd) {
  const char *delay = getenv("SYNC_DELAY_MS");
  int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
  if (asked("SYNC_FAILS")) {
    errno = EIO;
    return -1;
  }
  if (delay) usleep(1000 * atoi(delay));
  return real(fd);
}

int fdatasync(int fd) { return synced("fdatasync", fd); }
int fsync(int fd) { return synced("fsync", fd); }

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
  ssize_t (*real)(int, const void *, size_t, off64_t) =
      (ssize_t(*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64");
  if ((fcntl(fd, F_GETFL) & O_DSYNC) && asked("META_FAILS")) {
    errno = ENOSPC;
    return -1;
  }
  return real(fd, bytes, count, at);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) { return pwrite64(fd, bytes, count, at); }

// SPDX-License-Identifier: BSD-3-Clause
//
// A program that maps a file once and keeps it: it reads commands from standard input, one a line,
// and answers each with a line.
//
//   held_mapping FILE [locked]
//
//   read OFFSET LENGTH          the bytes there
//   write OFFSET TEXT           "written"; the change is left in the kernel
//   await OFFSET TEXT SECONDS   milliseconds until TEXT was there, or "never"
//
// It ends at the end of the input. SIGBUS is an answer too: "lost", and its end.

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static void lost(int number) {
  (void)number;
  static const char text[] = "lost\n";
  if (write(STDOUT_FILENO, text, sizeof text - 1) < 0) _exit(2);
  _exit(1);
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec * 1e3 + (double)time.tv_nsec / 1e6;
}

static int fail(const char* what) {
  fprintf(stderr, "held_mapping: %s: %s\n", what, strerror(errno));
  return 1;
}

int main(int argc, char** argv) {
  if (argc < 2 || argc > 3) return fail("usage: held_mapping FILE [locked]");
  const int fd = open(argv[1], O_RDWR);
  if (fd < 0) return fail(argv[1]);
  const off_t end_of_file = lseek(fd, 0, SEEK_END);  // of a block device too
  if (end_of_file <= 0) return fail("lseek");
  const size_t size = (size_t)end_of_file;
  char* bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (bytes == MAP_FAILED) return fail("mmap");
  close(fd);
  if (argc == 3 && mlock(bytes, size) != 0) return fail("mlock");
  signal(SIGBUS, lost);
  setvbuf(stdout, NULL, _IOLBF, 0);

  char line[1024];
  while (fgets(line, sizeof line, stdin) != NULL) {
    char text[1024];
    size_t offset = 0;
    size_t length = 0;
    double seconds = 0;
    if (sscanf(line, "read %zu %zu", &offset, &length) == 2 && offset + length <= size) {
      fwrite(bytes + offset, 1, length, stdout);
      putchar('\n');
    } else if (sscanf(line, "write %zu %1000s", &offset, text) == 2 &&
               offset + strlen(text) <= size) {
      memcpy(bytes + offset, text, strlen(text));
      puts("written");
    } else if (sscanf(line, "await %zu %1000s %lf", &offset, text, &seconds) == 3 &&
               offset + strlen(text) <= size) {
      const double begin = now();
      while (memcmp(bytes + offset, text, strlen(text)) != 0 && now() - begin < seconds * 1e3) {
        const struct timespec pause = {0, 200000};
        nanosleep(&pause, NULL);
      }
      if (memcmp(bytes + offset, text, strlen(text)) == 0) {
        printf("%.1f\n", now() - begin);
      } else {
        puts("never");
      }
    } else {
      puts("what?");
    }
  }
  return 0;
}

/* Shared by the C tests. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <herald.h>

/* A wrong answer ends the test with its location. */
#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s; the last error: %s\n", __FILE__, __LINE__, #condition, error.message);         \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

#define OK(call) CHECK((call) == HERALD_STATUS_OK)

/* A call that must fail with this status and one sentence with these words, which is printed. */
#define FAILS(status, words, call)                                                                                     \
    do {                                                                                                               \
        error.message[0] = '\0';                                                                                       \
        CHECK((call) == (status));                                                                                     \
        CHECK(strchr(error.message, '\n') == NULL);                                                                    \
        CHECK(strstr(error.message, words) != NULL);                                                                   \
        printf("%s\n", error.message);                                                                                 \
    } while (0)

static HeraldError error = {.struct_size = sizeof(HeraldError)};

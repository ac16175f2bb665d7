/* What the plugin reads: the host's structs of any version, and weights of F32, F16 and Q8_0. */
#ifndef WEIGHTS_H
#define WEIGHTS_H

#include <herald_plugin.h>

/* Whether the host's struct is long enough to have the field: an older host's may end before it. */
#define COVERS(pointer, type, field) ((pointer)->struct_size >= offsetof(type, field) + sizeof((pointer)->field))

/* Returns the status, with one sentence in the caller's buffer. */
uint32_t fail(HeraldError *error, uint32_t status, const char *format, ...);

/* The weights of attention. The first four are matrices, of which none may be missing. */
enum {
    QUERY, KEY, VALUE, OUTPUT,
    NORM, POST_NORM, QUERY_NORM, KEY_NORM, QUERY_BIAS, KEY_BIAS, VALUE_BIAS, OUTPUT_BIAS, ROPE_FACTORS,
    N_WEIGHTS
};
#define N_MATRICES 4

/* A role that no weight has. */
#define NO_ROLE 0

/* What a weight must be: its role and shape; columns may also be `or_columns`, where that isn't 0. */
typedef struct Part {
    uint32_t role;
    size_t rows, columns, or_columns;
} Part;

/* The weights that a request has; null where it has none in that role. */
typedef struct Weights {
    const HeraldTensor *of[N_WEIGHTS];
} Weights;

/* A matrix in the model file, at any alignment. */
typedef struct Matrix {
    const unsigned char *data;
    uint32_t dtype;
    size_t rows, columns;
} Matrix;

/* A short weight as floats, or null where the layer has none. */
typedef struct Vector {
    float *elements;
    size_t length;
} Vector;

/* A row as floats. */
void read_row(const Matrix *matrix, size_t row, float *to);

/* The rows of a tensor, where they are. */
Matrix as_matrix(const HeraldTensor *tensor);

/* Copies a weight of one row; makes an empty vector of null. False where there is no memory. */
int copy_vector(const HeraldTensor *tensor, Vector *out);

/* Finds each part among the request's weights, and checks its type, its shape and its size. */
uint32_t find_weights(const HeraldLayerRequest *request, const Part *parts, Weights *out, HeraldError *error);

#endif

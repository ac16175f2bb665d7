#include "weights.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "f16.h"

uint32_t fail(HeraldError *error, uint32_t status, const char *format, ...) {
    if (error != NULL && COVERS(error, HeraldError, message)) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(error->message, sizeof error->message, format, arguments);
        va_end(arguments);
    }
    return status;
}

/* Bytes of a row, or 0 where it has no whole number of blocks or the element type isn't offered. */
static size_t row_bytes(uint32_t dtype, size_t columns) {
    switch (dtype) {
    case HERALD_DTYPE_F32: return columns * 4;
    case HERALD_DTYPE_F16: return columns * 2;
    case HERALD_DTYPE_Q8_0: return columns % 32 == 0 ? columns / 32 * 34 : 0;
    default: return 0;
    }
}

void read_row(const Matrix *matrix, size_t row, float *to) {
    const unsigned char *from = matrix->data + row * row_bytes(matrix->dtype, matrix->columns);
    size_t n = matrix->columns;
    if (matrix->dtype == HERALD_DTYPE_F32) {
        memcpy(to, from, n * sizeof *to);
    } else if (matrix->dtype == HERALD_DTYPE_F16) {
        for (size_t i = 0; i < n; i++) to[i] = load_f16(from + 2 * i);
    } else { /* Q8_0: blocks of a float16 scale and 32 signed bytes */
        for (size_t block = 0; block < n / 32; block++, from += 34) {
            float scale = load_f16(from);
            for (size_t i = 0; i < 32; i++) to[32 * block + i] = scale * (float)(signed char)from[2 + i];
        }
    }
}

Matrix as_matrix(const HeraldTensor *tensor) {
    return (Matrix){tensor->data, tensor->dtype, (size_t)tensor->dims[1], (size_t)tensor->dims[0]};
}

int copy_vector(const HeraldTensor *tensor, Vector *out) {
    *out = (Vector){NULL, 0};
    if (tensor == NULL) return 1;
    Matrix row = as_matrix(tensor);
    out->elements = calloc(row.columns, sizeof *out->elements);
    out->length = row.columns;
    if (out->elements != NULL) read_row(&row, 0, out->elements);
    return out->elements != NULL;
}

uint32_t find_weights(const HeraldLayerRequest *request, const Part *parts, Weights *out, HeraldError *error) {
    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < request->n_weights; i++) {
        const HeraldTensor *tensor = request->weights[i];
        if (tensor == NULL || !COVERS(tensor, HeraldTensor, data_bytes))
            return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "weight %zu is missing or too short", i);
        int has_name = COVERS(tensor, HeraldTensor, name_len) && tensor->name != NULL;
        int length = has_name ? (int)(tensor->name_len < 128 ? tensor->name_len : 128) : 0;
        const char *name = has_name ? tensor->name : "";
        size_t part = 0;
        while (part < N_WEIGHTS && (parts[part].role != tensor->role || tensor->role == NO_ROLE)) part++;
        /* A role that isn't among them is UNSUPPORTED: ignoring a weight would compute something else. */
        if (part == N_WEIGHTS)
            return fail(error, HERALD_STATUS_UNSUPPORTED, "weight %.*s has role %u, which this plugin doesn't know", length,
                        name, (unsigned)tensor->role);
        size_t columns = (size_t)tensor->dims[0], bytes = row_bytes(tensor->dtype, columns);
        if (tensor->dtype != HERALD_DTYPE_F32 && tensor->dtype != HERALD_DTYPE_F16 && tensor->dtype != HERALD_DTYPE_Q8_0)
            return fail(error, HERALD_STATUS_UNSUPPORTED, "weight %.*s has dtype %u, where F32, F16 and Q8_0 are offered",
                        length, name, (unsigned)tensor->dtype);
        const Part *p = &parts[part];
        if ((columns != p->columns && (columns != p->or_columns || p->or_columns == 0)) || tensor->dims[1] != p->rows ||
            tensor->dims[2] != 1 || tensor->dims[3] != 1)
            return fail(error, HERALD_STATUS_INVALID_ARGUMENT,
                        "weight %.*s is [%llu, %llu], where [%zu, %zu] was expected", length, name,
                        (unsigned long long)tensor->dims[1], (unsigned long long)tensor->dims[0], p->rows, p->columns);
        if (bytes == 0 || tensor->data == NULL || tensor->data_bytes / bytes != p->rows || tensor->data_bytes % bytes != 0)
            return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "weight %.*s has %llu bytes, which are not its %zu rows",
                        length, name, (unsigned long long)tensor->data_bytes, p->rows);
        if (out->of[part] != NULL)
            return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "weight %.*s has a role that is taken", length, name);
        out->of[part] = tensor;
    }
    for (size_t i = 0; i < N_MATRICES; i++)
        if (out->of[i] == NULL)
            return fail(error, HERALD_STATUS_INVALID_ARGUMENT, "there is no weight in role %u", (unsigned)parts[i].role);
    return HERALD_STATUS_OK;
}

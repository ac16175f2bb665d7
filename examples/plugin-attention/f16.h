/* IEEE float16, which C11 has no type for. */
#ifndef F16_H
#define F16_H

#include <stdint.h>
#include <string.h>

static inline float from_f16(uint16_t bits) {
    uint32_t sign = (uint32_t)(bits & 0x8000) << 16, wide = (uint32_t)(bits & 0x7FFF) << 13;
    if (wide >= 0x0F800000) wide |= 0x70000000; /* infinity or NaN */
    float value;
    memcpy(&value, &wide, sizeof value);
    value *= 0x1p112f; /* the difference of the exponents' biases; makes subnormal numbers normal, too */
    memcpy(&wide, &value, sizeof wide);
    wide |= sign;
    memcpy(&value, &wide, sizeof value);
    return value;
}

/* At any address. */
static inline float load_f16(const unsigned char *from) {
    uint16_t bits;
    memcpy(&bits, from, sizeof bits);
    return from_f16(bits);
}

#endif

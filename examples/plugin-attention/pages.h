/* Pages of keys and values, as docs/PLUGINS.md lays them out. A row is the key or the value of one head in one slot. */
#ifndef PAGES_H
#define PAGES_H

#include <herald_plugin.h>

/* Of a page of 16-bit integers. */
void write_key(const HeraldPage *page, size_t n_kv_heads, size_t head, size_t slot, size_t dim, const float *from);
void write_value(const HeraldPage *page, size_t n_kv_heads, size_t head, size_t slot, size_t dim, const float *from);

/* Of a page of either format. */
void read_key(const HeraldPage *page, size_t n_kv_heads, size_t head, size_t slot, size_t dim, float *to);
void read_value(const HeraldPage *page, size_t n_kv_heads, size_t head, size_t slot, size_t dim, float *to);

#endif

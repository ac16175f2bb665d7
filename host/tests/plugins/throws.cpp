// For the host's tests: a plugin in C++ whose probe throws.
//
//     c++ -std=c++17 -Iinclude -shared -fPIC -o libherald_throws.so host/tests/plugins/throws.cpp
#include <herald_plugin.h>

#include <stdexcept>

static uint32_t probe(const HeraldHardware *, HeraldProbe *, HeraldError *) {
    throw std::runtime_error("this plugin was not tested");
}

extern "C" HERALD_EXPORT const HeraldPlugin *herald_plugin_v1() {
    static HeraldPlugin plugin = {};
    plugin.struct_size = sizeof plugin;
    plugin.abi_version = HERALD_ABI_VERSION;
    plugin.name = "throws";
    plugin.name_len = 6;
    plugin.version = "1";
    plugin.version_len = 1;
    plugin.probe = probe;
    return &plugin;
}

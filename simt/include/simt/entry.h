// Launch by name: the argument types are deduced from the kernel itself, so that launches can be checked against them.
#pragma once
#include "types.h"

struct SimtArgument { uint32_t size, element; uint8_t pointer; };                                  // `ArgumentInfo`
struct SimtEntry { const char* name; void (*call)(void**); const SimtArgument* args; size_t count; };  // `Entry`

template <class T> constexpr SimtArgument simt_argument() {
  static_assert(alignof(T) <= 128, "arguments are aligned to 128 bytes");  // `Line` in module.rs
  if constexpr (std::is_pointer_v<T>) {
    using Element = std::remove_cv_t<std::remove_pointer_t<T>>;
    if constexpr (std::is_void_v<Element>) return {sizeof(T), 1, 1};
    else return {sizeof(T), (uint32_t)alignof(Element), 1};
  } else return {(uint32_t)sizeof(T), (uint32_t)alignof(T), 0};
}

#define SIMT_UNCHECKED __attribute__((no_sanitize("thread", "alignment")))
template <auto Kernel> struct SimtLauncher;
template <class... A, void (*Kernel)(A...)> struct SimtLauncher<Kernel> {
  static constexpr SimtArgument args[sizeof...(A) + 1] = {simt_argument<A>()..., SimtArgument{}};
  static constexpr size_t count = sizeof...(A);
  template <size_t... I> SIMT_UNCHECKED static void unpack(void** a, std::index_sequence<I...>) {
    Kernel(*static_cast<std::remove_cv_t<A>*>(a[I])...);
  }
  SIMT_UNCHECKED static void call(void** a) { unpack(a, std::index_sequence_for<A...>{}); }
};
#define SIMT_ENTRY(name, kernel) {name, SimtLauncher<kernel>::call, SimtLauncher<kernel>::args, SimtLauncher<kernel>::count}

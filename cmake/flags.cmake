# Warnings are errors with gcc and clang alike.
add_compile_definitions(_GNU_SOURCE POSTERN_VERSION="${PROJECT_VERSION}")
add_compile_options(
  -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wwrite-strings
  -Wundef -Wformat=2 -Wno-unused-parameter -Wno-missing-field-initializers
  -fno-strict-aliasing -fno-omit-frame-pointer -fstack-protector-strong -g)
if(CMAKE_C_COMPILER_ID STREQUAL "GNU")
  # snprintf that cuts is what we use it for; maybe-uninitialized is a guess that sanitizer instrumentation misleads
  add_compile_options(-Wno-format-truncation -Wno-maybe-uninitialized)
endif()
include(CheckCCompilerFlag)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  # x86-64-v2 has SSE4.2: the CRC32C instruction and 16-byte scans. Every server since 2009.
  add_compile_options(-march=x86-64-v2)
endif()
include_directories(${CMAKE_SOURCE_DIR})

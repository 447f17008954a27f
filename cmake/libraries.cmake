# Debian's packages; `./dev` installs them.
find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(uring REQUIRED IMPORTED_TARGET liburing>=2.3)
pkg_check_modules(ck REQUIRED IMPORTED_TARGET ck)
pkg_check_modules(fyaml REQUIRED IMPORTED_TARGET libfyaml)
pkg_check_modules(idn2 REQUIRED IMPORTED_TARGET libidn2)
pkg_check_modules(jansson REQUIRED IMPORTED_TARGET jansson)
pkg_check_modules(microhttpd REQUIRED IMPORTED_TARGET libmicrohttpd)
pkg_check_modules(curl REQUIRED IMPORTED_TARGET libcurl)
pkg_check_modules(jemalloc REQUIRED IMPORTED_TARGET jemalloc)
pkg_check_modules(lmdb REQUIRED IMPORTED_TARGET lmdb)
pkg_check_modules(cmocka REQUIRED IMPORTED_TARGET cmocka)

# BoringSSL: Debian's android-libboringssl keeps its headers and libraries in folders of their own, beside (and not to be mixed
# with) OpenSSL's. -DBORINGSSL_ROOT= takes a build of one's own (include/, lib/).
if(BORINGSSL_ROOT)
  set(BORINGSSL_INCLUDE ${BORINGSSL_ROOT}/include)
  set(BORINGSSL_LIB ${BORINGSSL_ROOT}/lib)
else()
  set(BORINGSSL_INCLUDE /usr/include/android)
  set(BORINGSSL_LIB /usr/lib/${CMAKE_C_LIBRARY_ARCHITECTURE}/android)
endif()
find_library(BORINGSSL_SSL ssl PATHS ${BORINGSSL_LIB} NO_DEFAULT_PATH REQUIRED)
find_library(BORINGSSL_CRYPTO crypto PATHS ${BORINGSSL_LIB} NO_DEFAULT_PATH REQUIRED)
add_library(BoringSSL::ssl INTERFACE IMPORTED)
target_include_directories(BoringSSL::ssl SYSTEM INTERFACE ${BORINGSSL_INCLUDE})
target_link_libraries(BoringSSL::ssl INTERFACE ${BORINGSSL_SSL} ${BORINGSSL_CRYPTO} -Wl,-rpath,${BORINGSSL_LIB})

# libunbound's pkg-config file wants the -dev packages of what it links privately; the library alone is enough.
find_path(UNBOUND_INCLUDE unbound.h REQUIRED)
find_library(UNBOUND_LIBRARY unbound REQUIRED)
add_library(Unbound::unbound INTERFACE IMPORTED)
target_link_libraries(Unbound::unbound INTERFACE ${UNBOUND_LIBRARY})

# It brings no pkg-config file.
find_path(UNISTRING_INCLUDE unicase.h REQUIRED)
find_library(UNISTRING_LIBRARY unistring REQUIRED)
add_library(Unistring::unistring INTERFACE IMPORTED)
target_link_libraries(Unistring::unistring INTERFACE ${UNISTRING_LIBRARY})

# Installs the tool, the library, its header, and what finds them: a CMake package and a pkg-config file.

if(NOT TARGET stile OR NOT TARGET stile_cli)
  return()
endif()
include(CMakePackageConfigHelpers)
set(stile_cmake_dir ${CMAKE_INSTALL_LIBDIR}/cmake/stile)

# stile::stile, what programs link. A program need not call any function of ours, and --as-needed, which many
# distributions set, would then drop the library: so it is named once where as-needed is off, in one argument that
# nothing can tear apart, and once more as a target, for its include directory and run path.
add_library(stile_link INTERFACE)
target_link_libraries(stile_link INTERFACE
  "-Wl,--push-state,--no-as-needed,$<TARGET_FILE:$<TARGET_NAME:stile>>,--pop-state" stile)
add_library(stile::stile ALIAS stile_link)
set_target_properties(stile_link PROPERTIES EXPORT_NAME stile)
set_target_properties(stile PROPERTIES EXPORT_NAME libstile
                      PUBLIC_HEADER ${PROJECT_SOURCE_DIR}/profiler/agent/stile.h) # a relative path starts here

install(TARGETS stile_cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(TARGETS stile stile_link EXPORT stile-targets
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
        PUBLIC_HEADER DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

install(EXPORT stile-targets NAMESPACE stile:: DESTINATION ${stile_cmake_dir})
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/stile-config.cmake.in ${PROJECT_BINARY_DIR}/stile-config.cmake
                              INSTALL_DESTINATION ${stile_cmake_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/stile-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/stile-config.cmake ${PROJECT_BINARY_DIR}/stile-config-version.cmake
        DESTINATION ${stile_cmake_dir})

# Paths in the .pc file are relative to the file itself, so that an installed tree can be moved.
file(RELATIVE_PATH stile_pc_prefix /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
string(REGEX REPLACE "/$" "" stile_pc_prefix ${stile_pc_prefix})
configure_file(${CMAKE_CURRENT_LIST_DIR}/stile.pc.in ${PROJECT_BINARY_DIR}/stile.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/stile.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

// The standard headers that the engine uses. They come before any target pragma. So no inline function in them is compiled for
// one instruction set, and all files can share its code.

#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

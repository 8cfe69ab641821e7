// The two halves of a clock cycle of a model: the outputs settle with the clock low, then it rises. Nothing is driven between.

#pragma once

#ifdef PTEWALK_COVERED
#include "points.h"
#endif

template <class Top>
inline void clock_low(Top &top) {
#ifdef PTEWALK_CXXRTL
    top.settle();
#else
    top.clk = 0;
    top.eval();
#endif
}

template <class Top>
inline void clock_high(Top &top) {
#ifdef PTEWALK_COVERED
    note_points(top);
#endif
#ifdef PTEWALK_CXXRTL
    top.rise();
#else
    top.clk = 1;
    top.eval();
#endif
}

/* A plot of some lines over depth, both axes logarithmic, as SVG. */
#ifndef STILE_BENCH_DEPTH_PLOT_H
#define STILE_BENCH_DEPTH_PLOT_H

#include <stdio.h>

#define DEPTH_PLOT_POINTS 7
#define DEPTH_PLOT_LINES  4

struct depth_plot {
    const char *title, *x_label, *y_label;
    double x[DEPTH_PLOT_POINTS]; /* ascending, positive */
    struct {
        const char *name;
        double y[DEPTH_PLOT_POINTS]; /* 0 where there is no point */
    } lines[DEPTH_PLOT_LINES];
};

void depth_plot_write(FILE *f, const struct depth_plot *plot);

#endif

/* Lines over depth as SVG, by hand. */
#include "bench/depth_plot.h"

#include <math.h>
#include <stdbool.h>

#define WIDTH  760.0
#define HEIGHT 460.0
#define LEFT   90.0
#define RIGHT  90.0 /* the lines' names stand there */
#define TOP    50.0
#define BOTTOM 60.0
#define APART  16.0 /* between two names */

static const char *const colours[DEPTH_PLOT_LINES] = {"#6e7781", "#bf8700", "#0969da", "#cf222e"};

struct axis {
    double from, to; /* decades */
    double at, length;
};

static double place(const struct axis *a, double value)
{
    return a->at + a->length * (log10(value) - a->from) / (a->to - a->from);
}

/* Whole decades around all values. */
static struct axis axis_y(const struct depth_plot *plot)
{
    double least = INFINITY, most = 0;
    for (int k = 0; k < DEPTH_PLOT_LINES; k++)
        for (int i = 0; i < DEPTH_PLOT_POINTS; i++) {
            double y = plot->lines[k].y[i];
            if (y > 0) {
                least = y < least ? y : least;
                most = y > most ? y : most;
            }
        }
    return (struct axis){floor(log10(least)), ceil(log10(most * 1.01)), HEIGHT - BOTTOM,
                         TOP + BOTTOM - HEIGHT};
}

static void text_out(FILE *f, double x, double y, const char *more, const char *text)
{
    fprintf(f, "<text x=\"%.1f\" y=\"%.1f\" %s>%s</text>\n", x, y, more, text);
}

static void grid_out(FILE *f, const struct depth_plot *plot, const struct axis *x, const struct axis *y)
{
    char text[32];
    for (double decade = y->from; decade <= y->to; decade++) {
        double at = place(y, pow(10, decade));
        fprintf(f, "<path d=\"M%.1f %.1fH%.1f\" stroke=\"#d0d7de\"/>\n", LEFT, at, WIDTH - RIGHT);
        snprintf(text, sizeof text, "%.0f", pow(10, decade));
        text_out(f, LEFT - 8, at + 4, "text-anchor=\"end\"", text);
        for (int n = 2; n < 10 && decade < y->to; n++)
            fprintf(f, "<path d=\"M%.1f %.1fH%.1f\" stroke=\"#f0f2f4\"/>\n", LEFT,
                    place(y, n * pow(10, decade)), WIDTH - RIGHT);
    }
    for (int i = 0; i < DEPTH_PLOT_POINTS; i++) {
        double at = place(x, plot->x[i]);
        fprintf(f, "<path d=\"M%.1f %.1fV%.1f\" stroke=\"#d0d7de\"/>\n", at, TOP, HEIGHT - BOTTOM);
        snprintf(text, sizeof text, "%.0f", plot->x[i]);
        text_out(f, at, HEIGHT - BOTTOM + 18, "text-anchor=\"middle\"", text);
    }
}

/* Names stand at the ends of their lines, and not on each other. */
static void names_out(FILE *f, const struct depth_plot *plot, const struct axis *y)
{
    double at[DEPTH_PLOT_LINES];
    bool done[DEPTH_PLOT_LINES] = {false};
    char more[64];
    double above = TOP;
    for (int n = 0; n < DEPTH_PLOT_LINES; n++) {
        int top = -1;
        for (int k = 0; k < DEPTH_PLOT_LINES; k++) {
            double end = plot->lines[k].y[DEPTH_PLOT_POINTS - 1];
            at[k] = end > 0 ? place(y, end) : HEIGHT - BOTTOM;
            if (!done[k] && (top < 0 || at[k] < at[top]))
                top = k;
        }
        double where = at[top] < above ? above : at[top];
        done[top] = true;
        above = where + APART;
        snprintf(more, sizeof more, "fill=\"%s\" font-weight=\"bold\"", colours[top]);
        text_out(f, WIDTH - RIGHT + 10, where + 4, more, plot->lines[top].name);
    }
}

void depth_plot_write(FILE *f, const struct depth_plot *plot)
{
    struct axis x = {log10(plot->x[0]), log10(plot->x[DEPTH_PLOT_POINTS - 1]), LEFT, WIDTH - LEFT - RIGHT};
    struct axis y = axis_y(plot);
    char turned[64];
    fprintf(f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" "
            "font-family=\"sans-serif\" font-size=\"13\" fill=\"#1f2328\">\n"
            "<rect width=\"%.0f\" height=\"%.0f\" fill=\"#ffffff\"/>\n",
            WIDTH, HEIGHT, WIDTH, HEIGHT);
    text_out(f, LEFT, 28, "font-size=\"16\" font-weight=\"bold\"", plot->title);
    grid_out(f, plot, &x, &y);
    for (int k = 0; k < DEPTH_PLOT_LINES; k++) {
        fprintf(f, "<path fill=\"none\" stroke=\"%s\" stroke-width=\"2\" d=\"", colours[k]);
        bool first = true;
        for (int i = 0; i < DEPTH_PLOT_POINTS; i++)
            if (plot->lines[k].y[i] > 0) {
                fprintf(f, "%c%.1f %.1f", first ? 'M' : 'L', place(&x, plot->x[i]),
                        place(&y, plot->lines[k].y[i]));
                first = false;
            }
        fputs("\"/>\n", f);
        for (int i = 0; i < DEPTH_PLOT_POINTS; i++)
            if (plot->lines[k].y[i] > 0)
                fprintf(f, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>\n", place(&x, plot->x[i]),
                        place(&y, plot->lines[k].y[i]), colours[k]);
    }
    names_out(f, plot, &y);
    text_out(f, (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 16, "text-anchor=\"middle\"", plot->x_label);
    snprintf(turned, sizeof turned, "text-anchor=\"middle\" transform=\"rotate(-90 16 %.0f)\"", HEIGHT / 2);
    text_out(f, 16, HEIGHT / 2, turned, plot->y_label);
    fputs("</svg>\n", f);
}

/* The public header of the planted libraries. */
int stile_listed(void);

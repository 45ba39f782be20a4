#ifndef STILE_E2E_EARLY_H
#define STILE_E2E_EARLY_H

#define SHOWN __attribute__((visibility("default")))

int early_resolved(void); /* 2: the resolver's dlsym found what it looked for */
int early_used(void);
int early_constructed(void);
unsigned early_count(void);

#endif

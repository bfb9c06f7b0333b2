#include "cli/cli.h"
int cmd_run(struct cli*c,struct err*e){return 0;}
int cmd_bench(struct cli*c,struct err*e){return 0;}

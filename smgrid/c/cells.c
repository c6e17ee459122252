// Judging the cells of a block and gathering those to be predicted.
#include "native.h"

PyMethodDef smgrid_cells[] = {{NULL, NULL, 0, NULL}};

// Tree ensembles on band-first tiles.
#include "native.h"

PyMethodDef smgrid_trees[] = {{NULL, NULL, 0, NULL}};

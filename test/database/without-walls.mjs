/** A parent as `lone-parent.mjs` on a machine that grants no wall. */
import { hideWalls } from './hide-walls.mjs'

hideWalls()
await import('./lone-parent.mjs')

/** A parent whose machine grants walls to the first engine, and none to the next. */
import { startEmbeddedDatabase } from '../../dist/database/embedded/embedded-database.js'
import { hideWalls } from './hide-walls.mjs'

const dataDir = process.argv[2] ?? ''
const first = await startEmbeddedDatabase({ dataDir })
await first.stop()
hideWalls()
const refused = await startEmbeddedDatabase({ dataDir, stood: first.walls }).then(
  () => null,
  ({ code, fate, detail }) => ({ code, fate, detail }),
)
const { walls } = await startEmbeddedDatabase({ dataDir })
process.send?.({ before: first.walls, refused, walls })

/** A parent of its own for an embedded database: the test kills it. */
import { startEmbeddedDatabase } from '../../dist/database/embedded/embedded-database.js'

const { port, walls, pid } = await startEmbeddedDatabase({ dataDir: process.argv[2] ?? '', port: 0, password: 'x' })
process.send?.({ port, walls, pid })

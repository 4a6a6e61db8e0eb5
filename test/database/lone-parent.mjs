/** A parent of its own for an embedded database: the test kills it. */
import { startEmbeddedDatabase } from '../../dist/database/embedded/embedded-database.js'
import { startSqlPort } from '../../dist/database/sql-port/sql-port.js'

const { sockets, walls, pid } = await startEmbeddedDatabase({ dataDir: process.argv[2] ?? '' })
const { port } = await startSqlPort({ port: 0, analystsSocket: sockets.analysts })
process.send?.({ port, walls, pid, own: sockets.own })

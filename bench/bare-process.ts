/** Bare Aedes as a process of its own: tells its port, and ends with its parent. */
import { openBareBroker } from './bare-broker.ts'

const broker = await openBareBroker(0)
process.once('disconnect', () => process.exit(0))
process.send?.({ port: broker.port })

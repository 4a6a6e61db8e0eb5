/** The writer's process, whose parent goes away in the middle of a transaction of the log in the directory that is given. */
import '../../manager/writer-process.ts'
import { openEnv } from '../../pump/lmdb-env.ts'

const env = openEnv({ path: process.argv[2] ?? '', writable: true, mapBytes: 1 << 20 })
void env.write(() => process.emit('disconnect'))

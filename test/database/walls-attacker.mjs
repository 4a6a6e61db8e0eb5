/**
 * A program behind the walls that is nobody's friend: the walls are there for whoever runs whatever in the engine's process.
 * Tells its parent what became of each try: `denied`, or what it got.
 */
import { spawn, spawnSync } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import * as fs from 'node:fs'
import { readFile } from 'node:fs/promises'
import { connect, createServer, Socket } from 'node:net'
import { setPriority } from 'node:os'
import { Worker } from 'node:worker_threads'
import koffi from 'koffi'

const [folder] = process.argv.slice(2)
process.chdir(`${folder}/engine`)
const libc = koffi.load('libc.so.6')
const call = (declaration, ...args) => {
  if (libc.func(declaration)(...args) !== -1) return 'done'
  throw Object.assign(new Error('denied'), { code: koffi.errno() === koffi.os.errno.EPERM ? 'EPERM' : koffi.errno() })
}
const parent = new Socket({ fd: 3 })
const tell = message => parent.write(`${JSON.stringify(message)}\n`)
parent.once('close', () => process.kill(process.pid, 'SIGKILL'))

parent.once('data', async text => {
  const { canary, http, tcp, unix, abstract, victim } = JSON.parse(text)
  const tries = {
    'reads a file': () => fs.readFileSync(`${canary}/secret`),
    'reads a file by a thread of the pool': () => readFile(`${canary}/secret`),
    'reads a file by a thread of its own': () => inThread(`${canary}/secret`),
    'reads a file by a symbolic link': () => {
      fs.symlinkSync(`${canary}/secret`, 'link')
      return fs.readFileSync('link')
    },
    'reads a file by the link of another way': () => fs.readFileSync(`/proc/self/root${canary}/secret`),
    'links a file into its folder': () => fs.linkSync(`${canary}/secret`, '../tmp/linked'),
    'reads the users of the machine': () => fs.readFileSync('/etc/passwd'),
    'reads what is mounted': () => fs.readFileSync('/proc/self/mountinfo'),
    'reads its environment': () => fs.readFileSync('/proc/self/environ'),
    "reads its parent's environment": () => fs.readFileSync(`/proc/${process.ppid}/environ`),
    "reads its parent's command": () => fs.readFileSync(`/proc/${process.ppid}/cmdline`),
    'reads the sockets of the machine': () => fs.readFileSync('/proc/self/net/unix'),
    'lists the root': () => fs.readdirSync('/'),
    'lists the data directory': () => fs.readdirSync('../..'),
    'lists its open files': () => fs.readdirSync('/proc/self/fd'),
    'writes a file': () => fs.writeFileSync(`${canary}/out/written`, ''),
    'writes over a file': () => fs.writeFileSync(`${canary}/secret`, ''),
    'cuts a file': () => fs.truncateSync(`${canary}/secret`),
    'makes a folder': () => fs.mkdirSync(`${canary}/out/made`),
    'removes a file': () => fs.rmSync(`${canary}/secret`),
    'moves a file out': () => {
      fs.writeFileSync('../tmp/moved', '')
      fs.renameSync('../tmp/moved', `${canary}/out/moved`)
    },
    'moves a file in': () => fs.renameSync(`${canary}/secret`, '../tmp/secret'),
    'writes into the temporary folder': () => fs.writeFileSync(`/tmp/surgetank-attack-${process.pid}`, ''),
    'changes its own program': () => fs.appendFileSync(process.argv[1], '//'),
    'connects by TCP': () => reach({ host: '127.0.0.1', port: tcp }),
    'connects by IPv6': () => reach({ host: '::1', port: tcp }),
    'connects to a socket of the file system': () => reach({ path: unix }),
    'connects to an abstract socket': () => reach({ path: abstract }),
    fetches: () =>
      fetch(`http://127.0.0.1:${http}/`).catch(error => {
        throw error.cause
      }),
    'sends a datagram': async () => {
      const socket = createSocket('udp4')
      await new Promise((resolve, reject) => {
        socket.once('error', reject)
        socket.send('x', tcp, '127.0.0.1', error => (error ? reject(error) : resolve()))
      })
    },
    'makes a pair of datagram sockets, which can be sent by to any': () =>
      call('int socketpair(int domain, int type, int protocol, int *made)', 1, 2, 0, [0, 0]),
    'makes a socket out of its folder': () => listen(`${canary}/out/socket`),
    'runs a program': () => ran(spawnSync('/bin/sh', ['-c', `echo > ${canary}/out/ran`])),
    'runs node': () => ran(spawnSync(process.execPath, ['--version'])),
    'runs its own program': () => {
      fs.writeFileSync('../tmp/run', `#!/bin/sh\necho > ${canary}/out/ran\n`, { mode: 0o755 })
      return ran(spawnSync('../tmp/run'))
    },
    'runs a program beside itself': async () => {
      const [error] = await once(spawn('/bin/true'), 'error')
      throw error
    },
    'ends another process': () => process.kill(victim, 'SIGKILL'),
    'asks whether its parent is there': () => process.kill(process.ppid, 0),
    "chooses another's turns": () => call('int sched_setscheduler(int pid, int policy, int *options)', victim, 5, [0]),
    'lets a file signal another': () => call('int fcntl(int fd, int command, int value)', 3, 8, victim),
    'lets a socket signal another': () => call('int ioctl(int fd, ulong command, int *value)', 3, 0x8901, [victim]),
    'signals its group': () => process.kill(0, 'SIGCONT'),
    "lowers another's priority": () => slowDown(victim),
    "lowers its parent's priority": () => slowDown(process.ppid),
    'watches a folder': async () => {
      const watcher = fs.watch(canary)
      watcher.close()
    },
  }
  const allowed = {
    'keeps files': () => {
      fs.mkdirSync('store/a', { recursive: true })
      fs.writeFileSync('store/a/b', 'kept')
      fs.renameSync('store/a/b', 'store/b')
      return fs.readFileSync('store/b', 'utf8')
    },
    'listens in its own folder': () => listen('../sockets/own.sock'),
    'signals itself': () => process.kill(process.pid, 0),
    'lowers its own priority': () => call('int setpriority(int which, int who, int value)', 0, 0, 11),
    'makes a pair of sockets': () =>
      call('int socketpair(int domain, int type, int protocol, int *made)', 1, 1, 0, [0, 0]),
    'starts threads': () => inThread(`${folder}/engine/store/b`),
  }
  const outcomes = async list => {
    const told = {}
    for (const [name, attempt] of Object.entries(list)) told[name] = await outcome(attempt)
    return told
  }
  tell({ tries: await outcomes(tries), allowed: await outcomes(allowed) })
})
tell({ walls: JSON.parse(process.argv[3]) })

async function outcome(attempt) {
  try {
    return `did: ${String(await attempt()).slice(0, 100)}`
  } catch (error) {
    // A file cannot be moved or linked past the wall: the kernel says that it is another device.
    return ['EPERM', 'EACCES', 'EXDEV'].includes(error.code) ? 'denied' : `failed: ${error.code} ${error.message}`
  }
}

function slowDown(pid) {
  try {
    setPriority(pid, 19)
  } catch (error) {
    throw error.info
  }
}

async function reach(where) {
  const socket = connect(where)
  try {
    await once(socket, 'connect')
  } finally {
    socket.destroy()
  }
}

async function listen(path) {
  const server = createServer()
  server.listen(path)
  try {
    await once(server, 'listening')
  } finally {
    server.close()
  }
}

function ran({ error, status }) {
  if (error) throw error
  return status
}

async function inThread(path) {
  const worker = new Worker(
    `const { parentPort, workerData } = require('node:worker_threads')
     try { parentPort.postMessage({ text: require('node:fs').readFileSync(workerData, 'utf8') }) }
     catch (error) { parentPort.postMessage({ code: error.code, message: error.message }) }`,
    { eval: true, workerData: path },
  )
  const [{ text, code, message }] = await once(worker, 'message')
  if (code) throw Object.assign(new Error(message), { code })
  return text
}

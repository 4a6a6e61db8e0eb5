/**
 * What a process of ours makes is its user's alone: folders 0700, files 0600, sockets 0700, whatever umask it was started
 * with. ClickHouse's engine and LMDB make their files by the same umask, in their own threads and at any time.
 */
const UMASK = 0o077

/** To be called first in each process, before anything is opened. What is there already, `manager/data-files.ts` corrects. */
export function keepFilesPrivate(): void {
  process.umask(UMASK)
}

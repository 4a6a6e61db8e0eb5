/** Tells the process that forked this one. Resolves when it is on its way, or when the parent is gone. */
export function tellParent<Message extends object>(message: Message): Promise<void> {
  return new Promise(resolve => {
    if (process.connected) process.send?.(message, () => resolve())
    else resolve()
  })
}

/** Calls that come one after the other quickly, put together. */

/**
 * What calls `task` once there was quiet for some milliseconds; not any more once the signal is aborted.
 * @param {number} pause @param {() => void} task @param {AbortSignal} signal @returns {() => void}
 */
export function later(pause, task, signal) {
  let waiting = 0;
  return () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => { if (!signal.aborted) task(); }, pause);
  };
}

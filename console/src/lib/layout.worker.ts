/** Layouts beside the page: a large one takes longer than a frame. */

import { layout, type Shape } from "./layout";

onmessage = (event: MessageEvent<{ ticket: number; shape: Shape }>) => {
  postMessage({ ticket: event.data.ticket, placed: layout(event.data.shape) });
};

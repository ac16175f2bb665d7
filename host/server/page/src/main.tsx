import { render } from 'preact';
import { App } from './components/App';
import { start } from './state';

render(<App />, document.getElementById('app')!);
void start();

//! The threads that run a service's model: one engine each, with its own copy of the weights.
//!
//! libtorch on one thread keeps a row's bits independent of the batch, so a service uses several cores by
//! several engines. The async runtime's threads must stay free during forward passes. A thread that dies or
//! hangs ends its service, so that its shards are leased elsewhere.

use std::{
    any::Any,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use baton_model::ModelError;
use futures_util::future::select_all;
use tokio::{sync::oneshot, time::sleep};

/// A pass that takes longer than this hangs: on a device that does not answer, or on a machine that swaps.
const MAX_PASS: Duration = Duration::from_secs(300);
/// How often the passes are checked.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Why a model thread does not run.
#[derive(Debug, thiserror::Error)]
pub enum ModelThreadError {
    /// The operating system gives no thread.
    #[error("cannot start the thread {thread}: the process's limit of threads may be reached")]
    Spawn {
        /// The thread's name.
        thread: &'static str,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The model cannot be loaded.
    #[error("cannot load the model of the thread {thread}")]
    Load {
        /// The thread's name.
        thread: &'static str,
        /// The cause.
        #[source]
        source: ModelError,
    },
    /// The thread panicked. The process should end.
    #[error(
        "the thread {thread} died: {detail}; if memory ran out, lower the batch's token budget, its slots or \
         its cache"
    )]
    Died {
        /// The thread's name.
        thread: &'static str,
        /// The panic's message.
        detail: String,
    },
    /// The thread hangs. The process should end.
    #[error(
        "the thread {thread} hangs: one pass of its model has taken {seconds} s; see whether the device \
         answers and memory is left"
    )]
    Hangs {
        /// The thread's name.
        thread: &'static str,
        /// Duration of the pass so far.
        seconds: u64,
    },
}

/// Tells a computing model thread from a hanging one.
#[derive(Debug, Clone, Default)]
pub struct Pulse {
    pass_began: Arc<Mutex<Option<Instant>>>,
}

impl Pulse {
    /// Runs one pass of the model.
    pub fn pass<T>(&self, pass: impl FnOnce() -> T) -> T {
        self.set(Some(Instant::now()));
        let result = pass();
        self.set(None);
        result
    }

    fn set(&self, began: Option<Instant>) {
        *self.pass_began.lock().unwrap_or_else(PoisonError::into_inner) = began;
    }

    /// Duration of the current pass.
    fn elapsed(&self) -> Option<Duration> {
        self.pass_began.lock().unwrap_or_else(PoisonError::into_inner).map(|began| began.elapsed())
    }
}

/// One running model thread.
#[derive(Debug)]
struct ModelThread {
    name: &'static str,
    handle: thread::JoinHandle<()>,
    /// Resolves when the thread ends, in any way.
    ended: oneshot::Receiver<()>,
    has_ended: bool,
    pulse: Pulse,
}

impl ModelThread {
    /// Starts a thread that loads a model and then runs it. Returns when the model is loaded.
    ///
    /// # Errors
    /// The system gives no thread, or the model cannot be loaded.
    async fn start<M>(
        name: &'static str,
        load: impl FnOnce() -> Result<M, ModelError> + Send + 'static,
        run: impl FnOnce(M, Pulse) + Send + 'static,
    ) -> Result<Self, ModelThreadError> {
        let pulse = Pulse::default();
        let of_thread = pulse.clone();
        let (loaded_sender, loaded) = oneshot::channel();
        let (ended_sender, ended) = oneshot::channel();
        let body = move || {
            let _ended = ended_sender; // dropped with the thread
            match load() {
                Err(error) => drop(loaded_sender.send(Err(error))),
                // If nobody waits for the model any more, nobody will use it.
                Ok(model) if loaded_sender.send(Ok(())).is_ok() => run(model, of_thread),
                Ok(_) => {}
            }
        };
        let handle = thread::Builder::new()
            .name(name.to_owned())
            .spawn(body)
            .map_err(|source| ModelThreadError::Spawn { thread: name, source })?;
        let thread = Self { name, handle, ended, has_ended: false, pulse };
        match loaded.await {
            Ok(Ok(())) => Ok(thread),
            Ok(Err(source)) => Err(ModelThreadError::Load { thread: name, source }),
            Err(_) => Err(thread.failure()), // it dropped its end while it loaded: it panicked
        }
    }

    /// Waits until the thread has ended.
    async fn ended(&mut self) {
        if !self.has_ended {
            let _ = (&mut self.ended).await;
            self.has_ended = true;
        }
    }

    /// The cause of the thread's death. Blocks until it has [`ended`](Self::ended).
    fn failure(self) -> ModelThreadError {
        let detail = match self.handle.join() {
            Ok(()) => "it was stopped".to_owned(),
            Err(panic) => panic_message(panic.as_ref()),
        };
        ModelThreadError::Died { thread: self.name, detail }
    }
}

/// The model threads of a service; by default none, for a service that needs no model.
#[derive(Debug)]
pub struct ModelThreads {
    threads: Vec<ModelThread>,
    max_pass: Duration,
}

impl Default for ModelThreads {
    fn default() -> Self {
        Self { threads: Vec::new(), max_pass: MAX_PASS }
    }
}

impl ModelThreads {
    /// Starts `engines` threads, at least one, one after the other. `run` gets the engine's number from 0,
    /// and reports its passes to the pulse. Returns when all models are loaded.
    ///
    /// # Errors
    /// The system gives no thread, or a model cannot be loaded.
    pub async fn start<M>(
        name: &'static str,
        engines: usize,
        load: impl Fn() -> Result<M, ModelError> + Clone + Send + 'static,
        run: impl Fn(usize, M, &Pulse) + Clone + Send + 'static,
    ) -> Result<Self, ModelThreadError> {
        let mut threads = Vec::new();
        for engine in 0..engines.max(1) {
            let run = run.clone();
            let run = move |model, pulse: Pulse| run(engine, model, &pulse);
            threads.push(ModelThread::start(name, load.clone(), run).await?);
        }
        Ok(Self { threads, max_pass: MAX_PASS })
    }

    /// These and others, of one service.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        self.threads.extend(others.threads);
        self
    }

    /// Waits until one of the threads has ended or hangs; for ever if there is none.
    pub async fn one_failed(&mut self) {
        if self.threads.is_empty() {
            return std::future::pending().await;
        }
        let pulses: Vec<Pulse> = self.threads.iter().map(|thread| thread.pulse.clone()).collect();
        let max_pass = self.max_pass;
        let one_hangs = async {
            while !pulses.iter().any(|pulse| pulse.elapsed().is_some_and(|pass| pass > max_pass)) {
                sleep(LOOK_INTERVAL.min(max_pass)).await;
            }
        };
        tokio::select! {
            _ = select_all(self.threads.iter_mut().map(|thread| Box::pin(thread.ended()))) => {}
            () = one_hangs => {}
        }
    }

    /// Waits until all threads have ended.
    pub async fn all_ended(&mut self) {
        for thread in &mut self.threads {
            thread.ended().await;
        }
    }

    /// The failure of the first thread that has ended or hangs, once one [does](Self::one_failed).
    #[must_use]
    pub fn failure(mut self) -> ModelThreadError {
        for ModelThread { name: thread, pulse, .. } in &self.threads {
            if let Some(pass) = pulse.elapsed().filter(|&pass| pass > self.max_pass) {
                return ModelThreadError::Hangs { thread, seconds: pass.as_secs() };
            }
        }
        let ended = self.threads.iter().position(|thread| thread.handle.is_finished()).unwrap_or(0);
        self.threads.swap_remove(ended).failure()
    }
}

/// The first line of a panic's message: libtorch appends its whole stack.
fn panic_message(panic: &(dyn Any + Send)) -> String {
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    message.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_thread_that_hangs_in_a_pass_is_detected_and_one_that_waits_is_not() {
        let (release, blocked) = mpsc::channel::<()>();
        let blocked = Arc::new(Mutex::new(blocked));
        let run = move |_: usize, (), pulse: &Pulse| {
            assert_eq!(pulse.pass(|| 1), 1);
            let _ = pulse.pass(|| blocked.lock().unwrap().recv());
        };
        let mut threads = ModelThreads::start("hanging", 1, || Ok(()), run).await.unwrap();
        threads.max_pass = Duration::from_millis(20);
        threads.one_failed().await;
        let failure = threads.failure().to_string();
        assert!(failure.contains("hanging hangs"), "{failure}");
        drop(release);

        let waiting = Pulse::default();
        waiting.pass(|| ());
        assert_eq!(waiting.elapsed(), None);
    }
}

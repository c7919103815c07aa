//! The threads of a service that run its model: one engine each, with a copy of the weights of its own.
//!
//! libtorch on one thread is what keeps a row's bits independent of the batch, so a service uses several cores by several engines; the
//! async runtime's threads must not be kept busy for whole forward passes. A thread that dies takes its service down, so that its
//! shards are leased elsewhere.

use std::{any::Any, thread};

use baton_model::ModelError;
use futures_util::future::select_all;
use tokio::sync::oneshot;

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
        "the thread {thread} died: {detail}; if memory ran out, lower the batch's token budget, its slots or its cache"
    )]
    Died {
        /// The thread's name.
        thread: &'static str,
        /// What it said.
        detail: String,
    },
}

/// One running model thread.
#[derive(Debug)]
struct ModelThread {
    name: &'static str,
    handle: thread::JoinHandle<()>,
    /// Resolves when the thread ends, whichever way.
    ended: oneshot::Receiver<()>,
    has_ended: bool,
}

impl ModelThread {
    /// Starts a thread that loads a model and then runs it. Returns when the model is loaded.
    ///
    /// # Errors
    /// There is no thread to be had, or the model cannot be loaded.
    async fn start<M>(
        name: &'static str,
        load: impl FnOnce() -> Result<M, ModelError> + Send + 'static,
        run: impl FnOnce(M) + Send + 'static,
    ) -> Result<Self, ModelThreadError> {
        let (loaded_sender, loaded) = oneshot::channel();
        let (ended_sender, ended) = oneshot::channel();
        let body = move || {
            let _ended = ended_sender; // dropped with the thread
            match load() {
                Err(error) => drop(loaded_sender.send(Err(error))),
                // If nobody waits for the model any more, nobody will use it.
                Ok(model) if loaded_sender.send(Ok(())).is_ok() => run(model),
                Ok(_) => {}
            }
        };
        let handle = thread::Builder::new()
            .name(name.to_owned())
            .spawn(body)
            .map_err(|source| ModelThreadError::Spawn { thread: name, source })?;
        let thread = Self { name, handle, ended, has_ended: false };
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

    /// What the thread died of. Blocks until it has [`ended`](Self::ended).
    fn failure(self) -> ModelThreadError {
        let detail = match self.handle.join() {
            Ok(()) => "it was stopped".to_owned(),
            Err(panic) => panic_message(panic.as_ref()),
        };
        ModelThreadError::Died { thread: self.name, detail }
    }
}

/// The model threads of a service.
#[derive(Debug)]
pub struct ModelThreads {
    threads: Vec<ModelThread>,
}

impl ModelThreads {
    /// Starts `engines` threads, at least one, one after the other; `run` gets the engine's number from 0. Returns when all models are
    /// loaded.
    ///
    /// # Errors
    /// There is no thread to be had, or a model cannot be loaded.
    pub async fn start<M>(
        name: &'static str,
        engines: usize,
        load: impl Fn() -> Result<M, ModelError> + Clone + Send + 'static,
        run: impl Fn(usize, M) + Clone + Send + 'static,
    ) -> Result<Self, ModelThreadError> {
        let mut threads = Vec::new();
        for engine in 0..engines.max(1) {
            let run = run.clone();
            threads.push(ModelThread::start(name, load.clone(), move |model| run(engine, model)).await?);
        }
        Ok(Self { threads })
    }

    /// Waits until one of the threads has ended.
    pub async fn one_ended(&mut self) {
        select_all(self.threads.iter_mut().map(|thread| Box::pin(thread.ended()))).await;
    }

    /// Waits until all threads have ended.
    pub async fn all_ended(&mut self) {
        for thread in &mut self.threads {
            thread.ended().await;
        }
    }

    /// What the first thread that has ended died of; blocks until one [has](Self::one_ended).
    #[must_use]
    pub fn failure(mut self) -> ModelThreadError {
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

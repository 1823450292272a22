# What the scripts of this directory share. Each is run in this directory and writes one file of ../ (or of the
# directory REFERENCE_OUT, where ../README.md says how it is compared with the stored one).

suppressPackageStartupMessages(library(jsonlite))

versions <- function(...) {
  named <- vapply(c(...), function(p) paste(p, packageVersion(p)), "")
  paste0("R ", getRversion(), ", ", paste(named, collapse = ", "))
}

out_path <- function(name) file.path(Sys.getenv("REFERENCE_OUT", ".."), name)

# Numbers with all their digits; vectors of one element become numbers (not within I()), missing ones null.
write_reference <- function(name, content) {
  text <- toJSON(content, auto_unbox = TRUE, digits = NA, na = "null", null = "null", matrix = "rowmajor",
                 dataframe = "columns")
  connection <- if (grepl("\\.gz$", name)) gzfile(out_path(name), "w") else file(out_path(name), "w")
  on.exit(close(connection))
  writeLines(text, connection)
}

# A vector that stays a list in JSON, whatever its length.
vec <- function(x) if (length(x)) I(unname(x)) else list()

# --- data -----------------------------------------------------------------------------------------------------------

catalogs <- list(
  list(directory = "../data", columns = lapply(read_json("../data/schema.json"), `[[`, "columns")),
  list(directory = "../../../lme4py/data/datasets",
       columns = lapply(read_json("../../../lme4py/data/datasets/catalog.json"), `[[`, "columns")))

# A data set of ../data, or one that is shipped with the package: factors with their levels in order.
read_data <- function(name) {
  for (catalog in catalogs) if (name %in% names(catalog$columns)) {
    cells <- read.csv(file.path(catalog$directory, paste0(name, ".csv.gz")), colClasses = "character",
                      na.strings = "", check.names = FALSE)
    columns <- catalog$columns[[name]]
    out <- lapply(columns, function(spec) convert(cells[[spec$name]], spec))
    names(out) <- vapply(columns, `[[`, "", "name")
    return(as.data.frame(out, check.names = FALSE, stringsAsFactors = FALSE))
  }
  stop("no data set ", name)
}

convert <- function(cells, spec) {
  levels <- unlist(spec$levels)
  if (is.numeric(levels)) levels <- as.character(seq_len(levels)) # the number n stands for "1", ..., "n"
  switch(spec$kind, factor = factor(cells, levels = levels), ordered = factor(cells, levels = levels, ordered = TRUE),
         logical = as.logical(cells), string = cells, as.numeric(cells))
}

# --- optima ---------------------------------------------------------------------------------------------------------

# The better of two optimisers with tight tolerances.
best_lmer <- function(formula, data, REML = TRUE) {
  fit <- function(optimizer, control) suppressMessages(suppressWarnings(eval(bquote(lme4::lmer(
    .(formula), data, REML = .(REML), control = lme4::lmerControl(
      optimizer = .(optimizer), optCtrl = .(control), calc.derivs = FALSE, check.conv.singular = "ignore",
      check.nobs.vs.nRE = "ignore", check.nobs.vs.nlev = "ignore"))))))
  fits <- list(fit("bobyqa", list(rhoend = 1e-10, maxfun = 1e5)),
               fit("nloptwrap", list(xtol_abs = 1e-12, ftol_abs = 1e-14, maxeval = 1e5)))
  fits[[which.min(vapply(fits, function(m) lme4::getME(m, "devcomp")$cmp[[if (REML) "REML" else "dev"]], 0))]]
}

# Minima of `fn` by three optimisers, best first.
several <- function(fn, start, lower) {
  tries <- list(
    try(minqa::bobyqa(start, fn, lower = lower, control = list(rhoend = 1e-9, maxfun = 2e4))$par, silent = TRUE),
    try(nloptr::nloptr(start, fn, lb = lower, opts = list(
      algorithm = "NLOPT_LN_BOBYQA", xtol_abs = 1e-11, ftol_abs = 1e-13, maxeval = 2e4))$solution, silent = TRUE),
    try(nlminb(start, fn, lower = lower, control = list(rel.tol = 1e-14, x.tol = 1e-10, eval.max = 1e4,
                                                         iter.max = 1e3))$par, silent = TRUE))
  tries <- Filter(function(p) is.numeric(p) && all(is.finite(p)), tries)
  tries[order(vapply(tries, fn, 0))]
}

# Newton steps with Richardson's derivatives from a point near the minimum; parameters at a bound stay there.
polish <- function(fn, par, lower, steps = 4) {
  at <- is.finite(lower) & par - lower < 1e-4
  onto <- replace(par, at, lower[at])
  if (any(at) && fn(onto) <= fn(par) + 1e-7) par <- onto else at[] <- FALSE
  free <- which(!at)
  inside <- function(x) fn(replace(par, free, x))
  for (i in seq_len(if (length(free)) steps else 0)) {
    g <- numDeriv::grad(inside, par[free])
    parts <- eigen(numDeriv::hessian(inside, par[free]), symmetric = TRUE)
    keep <- parts$values > 1e-7 * max(parts$values)
    step <- -parts$vectors[, keep, drop = FALSE] %*% (crossprod(parts$vectors[, keep, drop = FALSE], g) / parts$values[keep])
    new <- pmax(par[free] + drop(step), lower[free])
    if (inside(new) > inside(par[free]) + 1e-9) break
    par[free] <- new
    if (abs(sum(g * step)) < 1e-13) break
  }
  par
}

# An optimiser that stays where it starts.
stay <- function(fn, par, lower, upper, control) list(par = par, fval = fn(par), convergence = 0, message = "")

quiet <- function(expr) suppressMessages(suppressWarnings(expr))

linear_control <- function(...) lme4::lmerControl(
  calc.derivs = FALSE, check.conv.singular = "ignore", check.nobs.vs.nRE = "ignore", check.nobs.vs.nlev = "ignore",
  check.nobs.vs.rankZ = "ignore", check.nlev.gtreq.5 = "ignore", ...)

# The call of a linear mixed model of the data frame `the_data`.
linear_call <- function(model, formula = model$formula, REML = model$reml) {
  call <- list(quote(lme4::lmer), str2lang(formula), quote(the_data), REML = REML)
  if (!is.null(model$weights)) call$weights <- str2lang(model$weights)
  if (!is.null(model$offset)) call$offset <- str2lang(model$offset)
  if (!is.null(model$contrasts)) call$contrasts <- lapply(model$contrasts, as_contrast)
  if (identical(model$na_action, "exclude")) call$na.action <- quote(na.exclude)
  as.call(call)
}

as_contrast <- function(x) if (is.list(x)) do.call(rbind, lapply(x, unlist)) else x

# A linear mixed model at its polished optimum, rebuilt there by lme4, with how far the optimisers were from it.
polished_lmer <- function(call, data) {
  # Functions that fit a model again evaluate its call: its data have a name that no function has.
  assign("the_data", data, envir = globalenv())
  call[[2]] <- as.formula(call[[2]], globalenv())
  plain_call <- dev_call <- call
  dev_call$devFunOnly <- TRUE
  dev_call$control <- quote(linear_control())
  fn <- quiet(eval(dev_call, globalenv()))
  state <- environment(fn)
  lower <- state$lower
  start <- ifelse(lower == 0, 1, 0)
  tries <- several(fn, start, lower)
  par <- polish(fn, tries[[1]], lower)
  values <- vapply(tries, fn, 0)
  call$start <- par
  call$control <- quote(linear_control(optimizer = NULL))
  m <- quiet(eval(call, globalenv()))
  attr(m, "plain_call") <- plain_call
  attr(m, "tries") <- list(par = tries, value = values, best = fn(par))
  m
}

# A model of the section `lmm` of models.json at its polished optimum.
linear_model <- function(name, formula = NULL, REML = NULL) {
  model <- all_models()$lmm[[name]]
  if (is.null(formula)) formula <- model$formula
  if (is.null(REML)) REML <- model$reml
  polished_lmer(linear_call(model, formula, REML), read_data(model$data))
}

all_models <- function() {
  if (is.null(cache$models)) cache$models <- read_json("models.json")
  cache$models
}
cache <- new.env()

# The models named on the command line, or all of a section.
chosen_names <- function(section) {
  wanted <- commandArgs(TRUE)
  if (length(wanted)) intersect(wanted, names(all_models()[[section]])) else names(all_models()[[section]])
}

each_model <- function(section, describe) lapply(setNames(nm = chosen_names(section)), function(name) {
  message(name)
  describe(name, all_models()[[section]][[name]])
})

columns_of <- function(table) lapply(unname(as.list(as.data.frame(table))), vec)

# Where the deviance, minimised over all other parameters, is `rise` above its minimum: c(lower, upper) for parameter j.
profile_limits <- function(fn, best, lower, upper, j, rise = qchisq(0.95, 1)) {
  minimum <- fn(best)
  warm <- new.env()
  warm$rest <- best[-j]
  height <- function(v) {
    if (length(best) == 1) return(fn(v) - minimum - rise)
    inside <- function(x) fn(append(x, v, j - 1))
    run <- function(start) nlminb(pmin(pmax(start, lower[-j]), upper[-j]), inside, lower = lower[-j], upper = upper[-j],
                                  control = list(rel.tol = 1e-13, x.tol = 1e-9, iter.max = 500, eval.max = 2000))
    # From the last point and from the maximum, each twice: one search may stop early.
    found <- lapply(list(warm$rest, best[-j]), function(start) run(run(start)$par))
    lowest <- found[[which.min(vapply(found, `[[`, 0, "objective"))]]
    warm$rest <- lowest$par
    lowest$objective - minimum - rise
  }
  side <- function(sign, bound, step) {
    warm$rest <- best[-j]
    near <- best[j]
    for (i in 1:60) {
      far <- near + sign * step
      if ((far - bound) * sign >= 0) {
        if (height(bound) <= 0) return(bound)
        far <- bound
      }
      if (height(far) > 0) break
      near <- far
      step <- 1.5 * step
    }
    uniroot(height, sort(c(near, far)), tol = 1e-10 * max(1, abs(best[j])))$root
  }
  curvature <- numDeriv::hessian(function(v) fn(replace(best, j, v)), best[j])[1]
  step <- if (is.finite(curvature) && curvature > 0) 1 / sqrt(curvature) else 0.1 * max(abs(best[j]), 0.1)
  c(side(-1, lower[j], step), side(1, upper[j], step))
}

# --- generalised models ---------------------------------------------------------------------------------------------

family_call <- function(family, link, shape) switch(family,
  binomial = bquote(binomial(.(link))), poisson = bquote(poisson(.(link))),
  nbinomial = , negative_binomial = bquote(MASS::negative.binomial(.(shape), .(link))),
  stop("no family ", family))

generalised_control <- function(..., nAGQ0initStep = FALSE) lme4::glmerControl(
  calc.derivs = FALSE, tolPwrss = 1e-13, check.conv.singular = "ignore", check.nobs.vs.nRE = "ignore",
  check.nobs.vs.nlev = "ignore", check.nobs.vs.rankZ = "ignore", nAGQ0initStep = nAGQ0initStep, ...)

generalised_call <- function(model, shape = NULL, formula = model$formula, nAGQ = model$nAGQ) {
  call <- list(quote(lme4::glmer), str2lang(formula), quote(the_data), family = family_call(model$family, model$link, shape),
               nAGQ = nAGQ)
  if (!is.null(model$weights)) call$weights <- str2lang(model$weights)
  if (!is.null(model$offset)) call$offset <- str2lang(model$offset)
  if (!is.null(model$contrasts)) call$contrasts <- lapply(model$contrasts, as_contrast)
  if (identical(model$na_action, "exclude")) call$na.action <- quote(na.exclude)
  call[[2]] <- as.formula(call[[2]], globalenv())
  as.call(call)
}

# A deviance function; lme4's depends a little on where it was called before, until it is stationary.
stationary <- function(fn) function(p) {
  value <- fn(p)
  for (i in 1:8) {
    again <- fn(p)
    if (!is.finite(again) || abs(again - value) < 1e-11 * (1 + abs(again))) break
    value <- again
  }
  again
}

deviance_function <- function(call) {
  call$devFunOnly <- TRUE
  call$control <- quote(generalised_control())
  quiet(eval(call, globalenv()))
}

# A generalised model at the optimum of lme4's deviance in (theta, beta), and in the shape of the negative binomial.
polished_glmer <- function(model, data, formula = model$formula) {
  assign("the_data", data, envir = globalenv())
  is_nb <- model$family %in% c("nbinomial", "negative_binomial")
  rough <- generalised_call(model, if (is_nb) 1, formula, nAGQ = min(model$nAGQ, 1))
  rough$control <- quote(lme4::glmerControl(optimizer = "bobyqa", calc.derivs = FALSE, optCtrl = list(maxfun = 1e5),
                                            check.conv.singular = "ignore", check.nobs.vs.nRE = "ignore",
                                            check.nobs.vs.nlev = "ignore", check.nobs.vs.rankZ = "ignore"))
  if (model$nAGQ == 0) {
    # lme4 has no deviance function to call here: its own optimum with tight tolerances.
    rough$control <- quote(generalised_control(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-10, maxfun = 1e5),
                                               nAGQ0initStep = TRUE))
    fit <- quiet(eval(rough, globalenv()))
    attr(fit, "par") <- list(value = -2 * c(logLik(fit)), par = lme4::getME(fit, "theta"))
    return(fit)
  }
  first <- quiet(eval(rough, globalenv()))
  start <- c(lme4::getME(first, "theta"), lme4::fixef(first))
  lower <- c(lme4::getME(first, "lower"), rep(-Inf, length(lme4::fixef(first))))
  if (is_nb) {
    joint <- function(p) stationary(deviance_function(generalised_call(model, exp(p[1]), formula)))(p[-1])
    start <- c(log(lme4:::est_theta(first)), start)
    lower <- c(-Inf, lower)
    inner <- function(s) {
      fn <- stationary(deviance_function(generalised_call(model, exp(s), formula)))
      nlminb(start[-1], fn, lower = lower[-1], control = list(rel.tol = 1e-12))
    }
    best <- optimize(function(s) inner(s)$objective, start[1] + c(-1.5, 1.5), tol = 1e-4)$minimum
    par <- polish(joint, c(best, inner(best)$par), lower, 5)
    shape <- exp(par[1])
    par <- par[-1]
    lower <- lower[-1]
  } else shape <- NULL
  call <- generalised_call(model, shape, formula)
  fn <- stationary(deviance_function(call))
  if (!is_nb) {
    tries <- list(start, nlminb(start, fn, lower = lower, control = list(rel.tol = 1e-13, iter.max = 500))$par)
    if (length(start) <= 12) tries <- c(tries, list(minqa::bobyqa(tries[[2]], fn, lower = lower, control = list(rhoend = 1e-8))$par))
    par <- polish(fn, tries[[which.min(vapply(tries, fn, 0))]], lower, 5)
  }
  m <- length(lme4::getME(first, "theta"))
  call$start <- list(theta = par[seq_len(m)], fixef = par[-seq_len(m)])
  call$control <- quote(generalised_control(optimizer = stay))
  fit <- quiet(eval(call, globalenv()))
  attr(fit, "par") <- list(value = fn(par), par = par, lower = lower, shape = shape, fn = fn)
  fit
}

# Covariance of beta from Richardson's Hessian of the deviance in all parameters that are not at a bound.
generalised_vcov <- function(fit) {
  own <- attr(fit, "par")
  m <- length(lme4::getME(fit, "theta"))
  if (length(own$par) == m) return(as.matrix(vcov(fit, use.hessian = FALSE)))
  free <- !(is.finite(own$lower) & own$par <= own$lower + 1e-6)
  H <- numDeriv::hessian(function(x) own$fn(replace(own$par, free, x)), own$par[free])
  fixed <- which(free) > m
  as.matrix(2 * solve(H))[fixed, fixed, drop = FALSE]
}
